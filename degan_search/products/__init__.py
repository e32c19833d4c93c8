"""What a user takes away: generated images, a student's file, sample grids."""
