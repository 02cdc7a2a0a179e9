"""What a hypervisor's domain asks for: its XML as a frozen value, what it means for a GPU, and why it cannot be. Pure."""
