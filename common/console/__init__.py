"""What the consoles of officers, sites and the coordinator share: sessions, guards, texts, pages."""
