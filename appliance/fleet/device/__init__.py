"""The box's side of the fleet: the link, what it says, what it is asked, and the jobs that it does."""
