"""PostgreSQL, broker and supervisor for one machine. Nothing here imports an app or the settings."""
