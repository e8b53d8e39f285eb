// On the picture of the house: the room under the pointer shows in green what it imports and in orange who imports it.
document.querySelectorAll(".house .room").forEach((room) => {
  const rooms = [...document.querySelectorAll(".house .room")];
  const below = room.dataset.imports.split(" ");
  const mark = (on) => rooms.forEach((other) => {
    other.classList.toggle("below", on && below.includes(other.dataset.room));
    other.classList.toggle("above", on && other.dataset.imports.split(" ").includes(room.dataset.room));
  });
  room.addEventListener("mouseenter", () => mark(true));
  room.addEventListener("mouseleave", () => mark(false));
});
