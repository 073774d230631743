"""From lattice points to pictures: planes through the lesion, HU sampled on them, HU rendered as RGB."""
