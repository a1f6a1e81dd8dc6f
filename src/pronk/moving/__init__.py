"""Every change to a user's folder, with its way back."""
