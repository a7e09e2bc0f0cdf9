"""What every program needs: command lines, settings files, logs, child processes."""
