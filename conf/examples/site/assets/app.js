document.querySelector("main").append(` You are at ${location.pathname}.`);
