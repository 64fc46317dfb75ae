"""Tickets on resources: issued by some, claimed by others."""
