"""A run as one page to read: what it learned, where its time and bytes went, what it was made with."""
