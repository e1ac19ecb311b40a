"""What should the ad say? Prompts, decoding constraints, sampling, and the job that writes texts."""
