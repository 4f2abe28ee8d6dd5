"""What monitoring finds, and the figures it leaves for Prometheus."""
