"""From contours to the lesion: closed paths to voxels of the CT's grid, voxels to points of the isotropic lattice."""
