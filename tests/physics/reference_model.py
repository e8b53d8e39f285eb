"""The model of a visit written down again, plainly: PyTorch, all coefficients and the whole curvature in memory."""

import math

import torch

from spectramind_nb.physics.limb_darkening import limb_darkening_prior
from spectramind_nb.physics.normalised_curves import chebyshev
from spectramind_nb.physics.transit import limb_darkening_shares, occultation_gradients


def separation_gradients(time_h, geometry, later, orbit):
    "Separation in stellar radii (T,) and its derivatives (T, 4)."
    t0, offset, ln_speed, impact2 = geometry
    rate = 2 * math.pi / orbit.period_d
    phase = rate * (time_h - orbit.middle_h - t0 - later * offset) / 24
    sin, cos = torch.sin(phase), torch.cos(phase)
    a_rs = torch.exp(ln_speed) / rate
    z = torch.sqrt((a_rs**2 * sin**2 + impact2 * cos**2).clamp(min=1e-8))
    by_t0 = (impact2 - a_rs**2) * sin * cos * rate / (24 * z)
    gradients = torch.stack([by_t0, later * by_t0, a_rs**2 * sin**2 / z, cos**2 / (2 * z)], dim=1)
    return torch.where(cos > 0, z, math.inf), gradients


def channel_light_curves(z, depth, shares, white):
    "Flux (T, C) and the terms (T, 3) of which it is made: hidden fractions, by z, by depth."
    k = torch.sqrt(white)
    hidden, by_z, by_k = occultation_gradients(z, k.expand_as(z)).transpose(1, 2)
    by_depth = by_k / (2 * k)
    return 1 - hidden @ shares - by_depth @ (shares * (depth - white)), hidden, by_z, by_depth


class ReferenceModel:
    "Parameters, priors and normal equations of a visit; as `VisitModel`."

    def __init__(self, curves, orbit, temperature_k, config):
        self.curves, self.orbit = curves, orbit
        drift, limb, pointing = config["drift"], config["limb_darkening"], config["pointing"]
        mean, width, self._shared, end = [orbit.mean], [orbit.width], [], 4
        for c in curves:
            colours = 1 if c.broad else drift["wavelength_degree"] + 1
            bluer = (2 / float(c.wavelength_um.mean())) ** limb["difference"]["bluer"]
            scales = {"sum": 1.0, "difference": bluer}
            known = {u: [limb[u]["width"], limb[u]["tilt"], *limb[u].get("bends", [])] for u in scales}
            limb_width = torch.tensor([[scales[u] * width for width in known[u]][:colours] for u in scales])
            shifts = torch.full((c.pointing.shape[1], colours), pointing["amplitude"])
            parts = [limb_width.flatten(), torch.full((drift["time_degree"],), drift["amplitude"]),
                     torch.full((colours - 1,), drift["colour"]), shifts.flatten()]
            width += parts
            mean += [torch.zeros(len(v)) for v in parts]
            edges = [end]
            for part in parts:
                edges.append(edges[-1] + len(part))
            self._shared.append(tuple(edges))  # of limb darkening, f(t), g(wavelength), pointing
            end = edges[-1]
        self.shared, self.channels = end, [c.flux.shape[1] for c in curves]
        n = self.total = sum(self.channels)
        self.mean = torch.cat([*mean, torch.zeros(n), torch.ones(n)]).double()
        self.width = torch.cat([*width, torch.full((n,), config["depth_width"]), torch.ones(n)]).double()
        self._in_time = [chebyshev(c.phase, drift["time_degree"])[:, 1:] for c in curves]
        self._in_colour = [chebyshev(c.colour, drift["wavelength_degree"]) for c in curves]
        self._limb = [limb_darkening_prior(c.wavelength_um, temperature_k) for c in curves]

    def _own(self, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        "Positions of instrument i's shared parameters, depths and levels."
        begin, end = self._shared[i][0], self._shared[i][-1]
        depth = self.shared + sum(self.channels[:i]) + torch.arange(self.channels[i])
        return torch.cat([torch.arange(4), torch.arange(begin, end)]), depth, depth + self.total

    def linearise(
        self,
        i: int,  # instrument
        parameters: torch.Tensor,  # (P,)
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        "Predicted flux (T, C), functions of time (T, Q) and coefficients (C, own parameters, Q) of the derivatives."
        c, (begin, in_f, in_g, in_h, end) = self.curves[i], self._shared[i]
        in_time, in_colour = self._in_time[i], self._in_colour[i]
        _, at_depth, at_level = self._own(i)
        depth, level = parameters[at_depth], parameters[at_level]
        slopes, nt, ns, colours = (in_f - begin) // 2, in_time.shape[1], c.pointing.shape[1], in_h - in_g + 1
        in_colour = in_colour[:, :colours]
        # Shallow or negative depths use the curve of a 100 ppm planet, which scales.
        z, dz = separation_gradients(c.time_h, parameters[:4], float(i > 0), self.orbit)
        white = ((depth * c.sigma**-2).sum() / (c.sigma**-2).sum()).clamp(min=1e-4)
        both, apart = parameters[begin:in_f].reshape(2, slopes) @ in_colour[:, :slopes].T / 2
        u = self._limb[i] + torch.stack([both + apart, both - apart])
        shares, by_u1 = _shares_and_derivative(u, 0)
        by_u2 = _shares_and_derivative(u, 1)[1]
        f = parameters[in_f:in_g]
        g = in_colour @ torch.cat([f.new_ones(1), parameters[in_g:in_h]])
        drift = (in_time @ f)[:, None] * g + c.pointing @ (parameters[in_h:end].reshape(ns, colours) @ in_colour.T)
        curve, hidden, by_z, by_depth = channel_light_curves(z, depth, shares, white)
        flux = level * (1 + drift) * curve

        functions = torch.cat([torch.ones_like(z)[:, None], in_time, c.pointing, hidden, by_depth,
                               (dz[:, :, None] * by_z[:, None, :]).flatten(1)], dim=1)
        at_hidden, at_by_depth, at_geometry = 1 + nt + ns, 4 + nt + ns, 7 + nt + ns
        jacobian = z.new_zeros(len(depth), 4 + end - begin + 2, functions.shape[1])
        for way in range(4):
            jacobian[:, way, at_geometry + 3 * way:at_geometry + 3 * way + 3] = -shares.T
        for s in range(slopes):
            jacobian[:, 4 + s, at_hidden:at_by_depth] = -((by_u1 + by_u2) / 2 * in_colour[:, s]).T
            jacobian[:, 4 + slopes + s, at_hidden:at_by_depth] = -((by_u1 - by_u2) / 2 * in_colour[:, s]).T
        at_f, at_g, at_h = (4 + edge - begin for edge in (in_f, in_g, in_h))
        for t in range(nt):
            jacobian[:, at_f + t, 1 + t] = g
        jacobian[:, at_g:at_h, 1:1 + nt] = in_colour[:, 1:, None] * f
        for s in range(ns):
            jacobian[:, at_h + s * colours:at_h + (s + 1) * colours, 1 + nt + s] = in_colour
        jacobian[:, -2, at_by_depth:at_geometry] = -shares.T
        jacobian *= level[:, None, None]
        jacobian[:, -1, 0] = 1
        jacobian[:, -1, at_hidden:at_by_depth] = -shares.T
        return flux, functions, jacobian

    def normal_equations(
        self,
        parameters: torch.Tensor,  # (P,)
    ) -> tuple[float, torch.Tensor, torch.Tensor]:  # chi2 with priors, (P, P) curvature, (P,) downhill gradient
        "How well the parameters do and which way to go."
        off = (self.mean - parameters) / self.width
        curvature, gradient = torch.diag(self.width**-2), off / self.width
        chi2 = float(off @ off)
        for i, c in enumerate(self.curves):
            flux, functions, jacobian = self.linearise(i, parameters)
            residual, weight = torch.where(c.good, c.flux - flux, 0.0), c.sigma**-2
            chi2 += float((residual**2).sum(0) @ weight)
            products = torch.einsum("tq,tc,tr->cqr", functions, c.good.double(), functions)
            block = (jacobian @ products) @ jacobian.mT * weight[:, None, None]
            slope = (jacobian @ (functions.T @ residual).T[:, :, None])[..., 0] * weight[:, None]
            shared, *own = self._own(i)
            n = len(shared)
            curvature[shared[:, None], shared] += block[:, :n, :n].sum(0)
            gradient[shared] += slope[:, :n].sum(0)
            for a, at in enumerate(own):
                curvature[at[:, None], shared] += block[:, n + a, :n]
                curvature[shared[:, None], at] += block[:, n + a, :n].T
                gradient[at] += slope[:, n + a]
                for b, to in enumerate(own):
                    curvature[at, to] += block[:, n + a, n + b]
        return chi2, curvature, gradient

    def common_response(self, i: int, parameters: torch.Tensor, shape: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
        "(P, P) covariance of the gradient by noise of a shape (C,) over instrument i's channels, with this power (T,) in each cosine."
        c, bins = self.curves[i], len(power)
        _, functions, jacobian = self.linearise(i, parameters)
        pull = functions.new_zeros(len(parameters), functions.shape[1])
        weighted = jacobian * (shape / c.sigma**2)[:, None, None]
        shared, depth, level = self._own(i)
        pull[shared], pull[depth], pull[level] = weighted[:, :-2].sum(0), weighted[:, -2], weighted[:, -1]
        order, at = torch.arange(bins, dtype=torch.float64)[:, None], (torch.arange(bins) + 0.5) / bins
        waves = (2 / bins) ** 0.5 * torch.cos(math.pi * order * at)
        waves[0] /= 2**0.5
        covariance = waves.T @ (power[:, None] * waves)
        return pull @ (functions.T @ covariance @ functions) @ pull.T


def _shares_and_derivative(u: torch.Tensor, by: int) -> tuple[torch.Tensor, torch.Tensor]:
    "(3, C) shares of the limb-darkening terms and their derivative by u1 (0) or u2 (1)."
    shares = torch.stack(limb_darkening_shares(*u))
    # each share is its numerator over 1 - u1/3 - u2/6; written out, because forward AD does not work in threads
    whole = 1 - u[0] / 3 - u[1] / 6
    numerator, pull = [(-1.0, 2 / 3, 0.0), (-1.0, 4 / 3, -0.5)][by], (1 / 3, 1 / 6)[by]
    return shares, (u.new_tensor(numerator)[:, None] + pull * shares) / whole
