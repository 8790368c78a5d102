"""Progress in the terminal: the live display, plain text, and where the time went. Every verb may use it."""
