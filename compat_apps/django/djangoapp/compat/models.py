"""What people posted at ``/form``."""

from __future__ import annotations

from django.db import models


class Message(models.Model):
    """One text, and when it was posted."""

    text = models.TextField(blank=True)
    posted_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-posted_at"]

    def __str__(self) -> str:
        return self.text
