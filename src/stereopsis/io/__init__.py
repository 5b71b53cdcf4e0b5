"""Reading and writing: images, disparity, calibration, points, video, weights."""
