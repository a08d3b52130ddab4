"""One process that answers what was learned: vectors, neighbours, predictions, over HTTP."""
