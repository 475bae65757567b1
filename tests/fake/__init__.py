"""An in-memory fake of the hosts: it interprets the steps' real argv, and can stop inside each action."""
