"""The ``graphsys`` program: one thin command per stage."""
