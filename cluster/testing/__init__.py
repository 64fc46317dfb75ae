"""Tools for the tests of programs that use Coterie, and the plugin that gives them to pytest.

RULE: may import every room, and no room imports it. Nothing here is needed in production; pytest is
imported by `plugin.py` only, which nobody imports but pytest.
"""
