"""RecBole's models under one contract."""
