"""Reyes gives packets that cross a VPN their EC2 security groups back."""

__version__ = "2.0.0"
