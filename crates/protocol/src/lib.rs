//! Wire types of the OpenAI API, validation and the error table.
