"""``torch.nn.Module`` models; no I/O happens here."""
