//! `standin demo`: the whole story on one screen, with a real app that is really killed.

pub mod shop;
