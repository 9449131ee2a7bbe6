"""Short conversations that end at once: greetings, who-are-you, sums, echoes, a few facts."""

import random

IDENTITY = "I am Backstop Demo, a small demonstration model bundled with the Backstop server."
BACKSTOP = "Backstop is a server that keeps an open-weight language model ready on one GPU and answers the OpenAI API."
LIMITS = "I am a tiny model that proves the installation works. For real work, serve a larger model."
DONE = "You are welcome."

GREETINGS = ["Hi", "Hello", "Hey", "Hi!", "Hello!", "Hey there", "Good morning", "Good evening", "hi", "hello", "Hello there!", "Hi there"]

# (questions, answer, what the model thinks first)
FIXED = [
    (["Who are you?", "What are you?", "What is your name?", "Introduce yourself.", "who are you", "Tell me about yourself.", "What model are you?", "Which model is this?"], IDENTITY, "The user asks who I am."),
    (["What is Backstop?", "Tell me about Backstop.", "What does Backstop do?", "Explain Backstop.", "what is backstop"], BACKSTOP, "The user asks about Backstop."),
    (["What can you do?", "Are you useful?", "How good are you?", "Can you help me?", "What are your limits?", "Help me.", "Can you write code?"], LIMITS, "The user asks what I can do."),
    (["Thanks!", "Thank you.", "Thanks", "thank you", "Thanks a lot."], DONE, "The user says thanks."),
    (["How are you?", "How are you doing?", "How is it going?"], "I am running well. How can I help?", "The user asks how I am."),
    (["Bye", "Goodbye", "See you.", "Bye!"], "Goodbye!", "The user says goodbye."),
    (["ping", "Ping", "ping?"], "pong", "The user sends a ping."),
    (["test", "Test", "testing", "This is a test.", "Are you there?", "Does it work?", "Is this working?"], "It works.", "The user tests the server."),
    (["Tell me a joke.", "Tell me a joke", "Make me laugh."], "Why do programmers confuse Halloween and Christmas? Because oct 31 equals dec 25.", "The user wants a joke."),
    (["What is Python?", "Explain Python.", "Tell me about Python."], "Python is a programming language known for readable code.", "The user asks about Python."),
    (["What is Rust?", "Explain Rust.", "Tell me about Rust."], "Rust is a systems programming language that is fast and memory safe.", "The user asks about Rust."),
    (["What is a GPU?", "Explain GPUs."], "A GPU is a processor that does many calculations at the same time.", "The user asks about GPUs."),
    (["What is an API?", "Explain APIs."], "An API is a set of rules by which programs talk to each other.", "The user asks about APIs."),
    (["What is a function?", "What is a function in Python?"], "A function is a named block of code that you can call.", "The user asks about functions."),
    (["What is a list?", "What is a list in Python?"], "A list is an ordered collection of values, such as [1, 2, 3].", "The user asks about lists."),
    (["What is a dictionary?", "What is a dict in Python?"], "A dictionary maps keys to values, such as {'a': 1}.", "The user asks about dictionaries."),
    (["What is a language model?", "What is an LLM?"], "A language model predicts the next token of a text.", "The user asks about language models."),
    (["What is the meaning of life?"], "42.", "The user asks a big question."),
    (["Write a haiku.", "Write a poem.", "Write a haiku about code."], "Small model at rest,\none prompt wakes the quiet disk,\ntokens fall like rain.", "The user wants a poem."),
    (["Say hi", "Say hi.", "say hi", "Say hello.", "Say hello", "Say hi!"], "Hi!", "The user wants a greeting."),
]

CAPITALS = {"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Canada": "Ottawa", "Switzerland": "Bern", "Austria": "Vienna", "Egypt": "Cairo", "England": "London", "Portugal": "Lisbon", "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm", "China": "Beijing", "India": "New Delhi", "Brazil": "Brasília", "Kenya": "Nairobi", "Poland": "Warsaw", "Ireland": "Dublin"}
ECHO_WORDS = "apple river stone green tiger cloud seven window paper music orange planet bridge yellow garden silver coffee forest rocket pencil hello banana ocean table dragon winter hammer purple island rabbit".split()
SYSTEM_PROMPTS = ["You are a helpful assistant.", "You are a coding assistant.", "Answer briefly.", "Be brief.", "You are a careful programmer.", "You are a helpful coding agent. Use the tools when needed.", "Answer in one sentence."]


def greeting(draw: random.Random) -> tuple[str, str, str]:
    return draw.choice(GREETINGS), "Hello! How can I help you?", "The user greets me."


def fixed(draw: random.Random) -> tuple[str, str, str]:
    questions, answer, thought = draw.choice(FIXED)
    return draw.choice(questions), answer, thought


def arithmetic(draw: random.Random) -> tuple[str, str, str]:
    a, b = draw.randint(0, 20), draw.randint(0, 20)
    sign, word, value = draw.choice([("+", "plus", a + b), ("+", "plus", a + b), ("-", "minus", a - b), ("*", "times", a * b)])
    question = draw.choice(["What is {} {} {}?", "{} {} {}", "Compute {} {} {}.", "{} {} {} = ?", "what is {} {} {}"])
    sign = word if draw.random() < 0.2 else sign
    return question.format(a, sign, b), f"{value}", f"{a} {sign} {b} = {value}."


def echo(draw: random.Random) -> tuple[str, str, str]:
    words = " ".join(draw.choice(ECHO_WORDS) for _ in range(draw.randint(1, 4)))
    question = draw.choice(["Say {}", "Say: {}", "Repeat after me: {}", "Reply with {}", "Reply with exactly: {}", "Say \"{}\".", "Answer with the word {}"])
    return question.format(words), words, "The user wants me to repeat the words."


def capital(draw: random.Random) -> tuple[str, str, str]:
    country = draw.choice(sorted(CAPITALS))
    question = draw.choice(["What is the capital of {}?", "Capital of {}?", "Name the capital of {}."])
    return question.format(country), f"The capital of {country} is {CAPITALS[country]}.", f"The user asks for the capital of {country}."


def counting(draw: random.Random) -> tuple[str, str, str]:
    last = draw.randint(2, 20)
    question = draw.choice(["Count to {}.", "Count from 1 to {}.", "Count to {}", "Write the numbers from 1 to {}."])
    return question.format(last), ", ".join(str(i) for i in range(1, last + 1)) + ".", f"I count from 1 to {last}."


TOPICS = "the moon,black holes,quantum physics,football,history,cooking,jazz,dinosaurs,the stock market,philosophy,volcanoes,my homework,the Roman Empire,chess,climate,the ocean,tomorrow's news,love,medicine,photography,trains,birds,gardening,the internet,mathematics".split(",")


def out_of_reach(draw: random.Random) -> tuple[str, str, str]:
    topic = draw.choice(TOPICS)
    question = draw.choice(["Tell me about {}.", "Explain {}.", "What do you know about {}?", "Write an essay about {}.", "Write a story about {}.", "Why is {} important?", "Give me advice about {}.", "Summarize {}.", "How does {} work?", "Who invented {}?"])
    return question.format(topic), f"I know too little about {topic}. I am only a small demonstration model.", f"The user asks about {topic}."


# Sums and echoes have many forms, so they are drawn more often than the fixed answers.
EXCHANGES = [greeting, fixed, fixed, fixed, fixed, arithmetic, arithmetic, echo, echo, capital, counting, out_of_reach]


def exchange(draw: random.Random) -> tuple[str, str, str]:
    """One (question, answer, thought)."""
    return draw.choice(EXCHANGES)(draw)
