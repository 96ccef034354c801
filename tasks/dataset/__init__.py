"""Files into interactions, splits and nightly additions."""
