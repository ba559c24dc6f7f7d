"""How nano is made: conversations, kept tokens, packing and scores. Not part of the wheel."""
