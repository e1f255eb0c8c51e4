"""Sample data: a simulated campus, and the concepts that the demo works on."""
