"""What tests share: servers, clients, waiting."""
