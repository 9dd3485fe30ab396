"""rlx check: what rlx's own algorithms, environments and tasks must pass, for anybody's."""
