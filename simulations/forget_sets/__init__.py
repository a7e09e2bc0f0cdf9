"""What an audit lets a federation forget. One file each."""
