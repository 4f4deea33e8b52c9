"""What asyncio itself lacks: a clock and a stop to hand around, tasks seen to their end."""
