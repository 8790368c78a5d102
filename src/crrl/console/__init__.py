"""Progress in the terminal: the live display, plain text, and a breakdown of time. Every verb may use it."""
