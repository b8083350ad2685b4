"""A user's profile: an object whose state are typed records.

What is stored is checked and decoded by its type, here dataclasses. Changes arrive as a record in
which everything is optional, and each is noted in a history that is part of the state.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field, replace
from datetime import datetime

import perdure
from perdure import ObjectContext, ObjectSharedContext, TerminalError


@dataclass(frozen=True)
class Profile:
    name: str
    email: str
    languages: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Change:
    """What is None stays as it is."""

    name: str | None = None
    email: str | None = None
    languages: frozenset[str] | None = None


@dataclass(frozen=True)
class Noted:
    at: datetime
    what: str


class UserProfile(perdure.VirtualObject):
    """The key is the user's id."""

    @perdure.handler
    async def register(self, ctx: ObjectContext, profile: Profile) -> None:
        """Begin a profile; 409 if there is one."""
        if await ctx.get("profile", Profile) is not None:
            raise TerminalError(f"user {ctx.key} is registered already", 409)
        ctx.set("profile", profile)
        await self._note(ctx, "registered")

    @perdure.handler
    async def change(self, ctx: ObjectContext, change: Change) -> Profile:
        """Change a part of the profile, and return the whole."""
        profile = await self._existing(ctx)
        if change.name is not None:
            profile = replace(profile, name=change.name)
        if change.email is not None:
            profile = replace(profile, email=change.email)
        if change.languages is not None:
            profile = replace(profile, languages=change.languages)
        ctx.set("profile", profile)
        await self._note(ctx, "changed")
        return profile

    @perdure.handler
    async def forget(self, ctx: ObjectContext) -> None:
        """Remove all that is known of the user."""
        ctx.clear_all()

    @perdure.handler
    async def profile(self, ctx: ObjectSharedContext) -> Profile:
        """The profile; 404 if there is none."""
        return await self._existing(ctx)

    @perdure.handler
    async def history(self, ctx: ObjectSharedContext) -> list[Noted]:
        """What has happened to the profile, the oldest first."""
        return await ctx.get("history", list[Noted], [])

    async def _existing(self, ctx: ObjectContext | ObjectSharedContext) -> Profile:
        profile = await ctx.get("profile", Profile)
        if profile is None:
            raise TerminalError(f"there is no user {ctx.key}", 404)
        return profile

    async def _note(self, ctx: ObjectContext, what: str) -> None:
        history = await ctx.get("history", list[Noted], [])
        ctx.set("history", [*history, Noted(ctx.now(), what)])


services = [UserProfile()]


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with perdure.Engine(directory, services) as engine:
            await engine.call(UserProfile.register, Profile("Ada", "ada@example.org"), key="ada")
            change = Change(languages=frozenset({"en", "fr"}))
            profile = await engine.call(UserProfile.change, change, key="ada")
            print(profile.name, "speaks", *sorted(profile.languages))
            history = await engine.call(UserProfile.history, key="ada")
            print("history:", *(noted.what for noted in history))
            await engine.call(UserProfile.forget, key="ada")
            try:
                await engine.call(UserProfile.profile, key="ada")
            except TerminalError as error:
                print("forgotten:", error)


if __name__ == "__main__":
    asyncio.run(main())
