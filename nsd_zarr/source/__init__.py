"""What was delivered: session files and how they are laid out. Reads only; knows no store."""
