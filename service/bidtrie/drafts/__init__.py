"""What will the text go on with? Phrases seen before, grown into small trees that the model verifies in one step."""
