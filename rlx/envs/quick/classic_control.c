/* Gymnasium's classic control, every operation in its order and precision (rlx/envs/quick/compiled.py compares them). */

#include <math.h>
#include <stdint.h>

typedef int64_t i64;
typedef uint8_t u8;
#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

/* One step of one lane: constants k, state s, action -> new state, observation, reward; 1 where the episode terminates. */
typedef int Environment(const double *k, double *s, const void *action, float *obs, double *reward);

static volatile double two = 2.0; /* x ** 2 in Python is pow, which is not always x * x: keep the compiler from it */
INLINE double square(double x) { return pow(x, two); }
INLINE double within(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

/* Barto, Sutton and Anderson 1983 */
static int cartpole(const double *k, double *s, const void *action, float *obs, double *reward) {
    double force = k[0], gravity = k[1], masspole = k[2], total_mass = k[3], length = k[4], polemass_length = k[5];
    double tau = k[6], cosine = cos(s[2]), sine = sin(s[2]);
    double push = ((*(i64 *)action > 0 ? force : -force) + s[3] * s[3] * polemass_length * sine) / total_mass;
    double arm = (4.0 / 3.0 - cosine * cosine * masspole / total_mass) * length;
    double turn = (sine * gravity - cosine * push) / arm;
    double speed_up = push - turn * polemass_length * cosine / total_mass;
    s[0] += s[1] * tau, s[1] += speed_up * tau;
    s[2] += s[3] * tau, s[3] += turn * tau;
    for (int i = 0; i < 4; i++) obs[i] = (float)s[i];
    *reward = 1.0;
    return fabs(s[0]) > k[7] || fabs(s[2]) > k[8];
}

/* Moore 1990 */
static int mountain_car(const double *k, double *s, const void *action, float *obs, double *reward) {
    double force = k[0], gravity = k[1], max_speed = k[2], low = k[3], high = k[4];
    double v = s[1] + ((double)(*(i64 *)action - 1) * force + cos(3.0 * s[0]) * -gravity);
    v = within(v, -max_speed, max_speed);
    double x = within(s[0] + v, low, high);
    if (x == low && v < 0.0) v = 0.0;
    s[0] = x, s[1] = v, obs[0] = (float)x, obs[1] = (float)v;
    *reward = -1.0;
    return x >= k[5] && v >= k[6];
}

/* The state of the first step is of doubles, that of the others of floats (s[2]): so is the arithmetic. */
#define CLIMB(real)                                                                                                    \
    real v = (real)s[1] + (real)push, x;                                                                               \
    v = v > (real)max_speed ? (real)max_speed : v, v = v < (real)-max_speed ? (real)-max_speed : v;                    \
    x = (real)s[0] + v;                                                                                                \
    x = x > (real)high ? (real)high : x, x = x < (real)low ? (real)low : x;                                            \
    if (x == (real)low && v < 0) v = 0;                                                                                \
    terminated = x >= (real)k[4] && v >= (real)k[5], s[0] = (float)x, s[1] = (float)v;
static int continuous_mountain_car(const double *k, double *s, const void *action, float *obs, double *reward) {
    double power = k[0], max_speed = k[1], low = k[2], high = k[3], angle = 3.0 * s[0];
    double given = within(*(float *)action, k[6], k[7]);
    if (s[2] != 0.0) angle = (float)angle;
    float push = (float)given * (float)power - (float)(0.0025 * cos(angle));
    int terminated;
    if (s[2] != 0.0) { CLIMB(float) } else { CLIMB(double) }
    s[2] = 1.0, obs[0] = (float)s[0], obs[1] = (float)s[1];
    *reward = (terminated ? 100.0 : 0.0) - square(given) * 0.1;
    return terminated;
}

static int pendulum(const double *k, double *s, const void *action, float *obs, double *reward) {
    double g = k[0], m = k[1], l = k[2], dt = k[3], max_speed = k[4];
    float u = (float)within(*(float *)action, -k[5], k[5]);
    double turned = fmod(s[0] + M_PI, 2.0 * M_PI);
    double angle = (turned < 0.0 ? turned + 2.0 * M_PI : turned) - M_PI;
    *reward = -(square(angle) + 0.1 * square(s[1]) + (double)(0.001f * powf(u, (float)two)));
    double push = 3.0 * g / (2.0 * l) * sin(s[0]) + (double)((float)(3.0 / (m * square(l))) * u);
    s[1] = within(s[1] + push * dt, -max_speed, max_speed);
    s[0] = s[0] + s[1] * dt;
    obs[0] = (float)cos(s[0]), obs[1] = (float)sin(s[0]), obs[2] = (float)s[1];
    return 0;
}

/* Sutton 1996; its equations of motion, for theta1, theta2 and their speeds */
static void acrobot_speeds(const double *k, const double *s, double torque, double *out) {
    double m1 = k[0], m2 = k[1], l1 = k[2], lc1 = k[3], lc2 = k[4], inertia = k[5], g = 9.8;
    double cos2 = cos(s[1]), sin2 = sin(s[1]);
    double d1 = m1 * square(lc1) + m2 * (square(l1) + square(lc2) + 2.0 * l1 * lc2 * cos2) + inertia + inertia;
    double d2 = m2 * (square(lc2) + l1 * lc2 * cos2) + inertia;
    double phi2 = m2 * lc2 * g * cos(s[0] + s[1] - M_PI / 2.0);
    double phi1 = -m2 * l1 * lc2 * square(s[3]) * sin2 - 2.0 * m2 * l1 * lc2 * s[3] * s[2] * sin2 +
                  (m1 * lc1 + m2 * l1) * g * cos(s[0] - M_PI / 2.0) + phi2;
    out[0] = s[2], out[1] = s[3];
    out[3] = (torque + d2 / d1 * phi1 - m2 * l1 * lc2 * square(s[2]) * sin2 - phi2) /
             (m2 * square(lc2) + inertia - square(d2) / d1);
    out[2] = -(d2 * out[3] + phi1) / d1;
}

static int acrobot(const double *k, double *s, const void *action, float *obs, double *reward) {
    double torque = (double)(*(i64 *)action - 1), dt = k[6], speed[4][4], at[4];
    for (int stage = 0; stage < 4; stage++) { /* Runge and Kutta */
        for (int i = 0; i < 4; i++) at[i] = stage ? s[i] + (stage == 3 ? dt : dt / 2.0) * speed[stage - 1][i] : s[i];
        acrobot_speeds(k, at, torque, speed[stage]);
    }
    for (int i = 0; i < 4; i++)
        s[i] = s[i] + dt / 6.0 * (speed[0][i] + 2.0 * speed[1][i] + 2.0 * speed[2][i] + speed[3][i]);
    for (int i = 0; i < 2; i++) {
        while (s[i] > M_PI) s[i] = s[i] - 2.0 * M_PI;
        while (s[i] < -M_PI) s[i] = s[i] + 2.0 * M_PI;
        s[i + 2] = within(s[i + 2], -k[i + 7], k[i + 7]);
        obs[2 * i] = (float)cos(s[i]), obs[2 * i + 1] = (float)sin(s[i]), obs[i + 4] = (float)s[i + 2];
    }
    int terminated = -cos(s[0]) - cos(s[1] + s[0]) > 1.0;
    *reward = terminated ? 0.0 : -1.0;
    return terminated;
}

#define POINTER(name) name,
#define TEXT(name) #name " "
#define ENVIRONMENTS(X) X(cartpole) X(mountain_car) X(continuous_mountain_car) X(pendulum) X(acrobot)
static Environment *const environments[] = {ENVIRONMENTS(POINTER)};
EXPORT const char *rlx_environments(void) { return ENVIRONMENTS(TEXT); }

typedef struct { /* rlx/envs/quick/compiled.py fills it; a row for each lane */
    void *step; /* what rlx/engine/kernels.c knows of the environments ends with action_bytes */
    float *obs; double *reward, *returns;
    i64 lanes, obs_size, action_bytes, code, state_size;
    double *state; u8 *terminated;
    double k[12];
} Lanes;

/* One step of all lanes; 1 if an episode ended or a number is not finite, else 0. */
EXPORT i64 rlx_env(Lanes *e, const char *action) {
    i64 ended = 0;
    float sum = 0.0f;
    for (i64 i = 0; i < e->lanes; i++) {
        float *obs = e->obs + i * e->obs_size;
        ended |= e->terminated[i] = (u8)environments[e->code](e->k, e->state + i * e->state_size,
                                                              action + i * e->action_bytes, obs, e->reward + i);
        for (i64 j = 0; j < e->obs_size; j++) sum += obs[j] * 0.0f; /* NaN as soon as one is not finite */
        sum += (float)e->reward[i] * 0.0f;
    }
    return ended | (sum != 0.0f);
}
