"""Engines that belong to other servers and libraries."""
