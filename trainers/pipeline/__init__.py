"""Full-graph training with layers and nodes spread over processes: pipeline, graph parallel, and both at once."""
