"""Snapshots on the responder's machine: whether one is whole, and what it holds."""
