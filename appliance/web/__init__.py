"""What every page shares: server, guard, templates, gettext, assets, server-sent events. No page lives here."""
