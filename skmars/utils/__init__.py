"""Tools for those who write segmenters and samplers of their own."""
