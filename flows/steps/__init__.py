"""The steps that several flows share."""
