"""Which packages a study is owed, the worker that runs them, and what their scores mean here."""
