"""Object stores: the interface in `base`, one module per implementation."""
