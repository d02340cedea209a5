"""The pipeline: what an experiment needs, what is there already, and the stages that make the rest."""
