"""What a store does on this machine, next to the floors of the hardware and to other readers of the same store."""
