export default {
    // Any folder of any host.
    base: "./",
    // For `vite dev`: the optimizer would move index.js away from its worker.
    optimizeDeps: { exclude: ["bdh-gpu"] },
};
