"""One number per image from (disparity, truth, mask); averaging belongs to the protocol."""
