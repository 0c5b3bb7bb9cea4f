"""What one does with betas next: z-scores, repeats, noise ceiling, splits. Pure functions of arrays."""
